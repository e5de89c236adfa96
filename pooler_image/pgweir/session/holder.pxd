from pgweir.pool.records cimport ClientRecord


cdef class Holder(ClientRecord):
    cdef public object pool, wire, server, linking, values
    cdef public Py_ssize_t need
    cdef public bint keeps_server, stalled, write_paused
