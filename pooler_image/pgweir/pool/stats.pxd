cimport cython

cdef int BUCKETS
cdef double FIRST_BOUND


cdef class Histogram:
    cdef public Py_ssize_t[21] counts

    @cython.locals(bound=double, bucket=int)
    cpdef observe(self, double seconds)


cdef class Timings:
    cdef public Histogram spread
    cdef public double seconds

    cpdef observe(self, double seconds)


cdef class Stats:
    cdef public Py_ssize_t server_assignment_count, xact_count, query_count, received, sent
    cdef public double xact_time, query_time, wait_time
    cdef public Py_ssize_t client_parse_count, server_parse_count, bind_count, client_login_count
    cdef public Histogram waits, queries, transactions
