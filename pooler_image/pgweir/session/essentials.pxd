cdef class Essentials:
    cdef public object clock
    cdef public bint disable_pqexec, draining
    cdef public Py_ssize_t max_packet_size
