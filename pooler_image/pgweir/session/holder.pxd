from pgweir.pool.records cimport ClientRecord
from pgweir.pool.turns cimport Turns


cdef class Holder(ClientRecord):
    cdef public Turns pool
    cdef public object wire, server, linking, values
    cdef public Py_ssize_t need
    cdef public bint keeps_server, stalled, write_paused

    cdef _begin_holder(self, Turns pool, double now)
