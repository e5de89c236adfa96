from pgweir.pool.records cimport ClientRecord
from pgweir.pool.turns cimport Turns


cdef class Holder(ClientRecord)  # known to `server`, which this room names
from pgweir.session.server cimport ServerSession


cdef class Holder(ClientRecord):
    cdef public Turns pool
    cdef public object wire, values
    cdef public ServerSession server, linking
    cdef public Py_ssize_t need
    cdef public bint keeps_server, stalled, write_paused

    cdef _begin_holder(self, Turns pool, double now)
    cpdef granted(self, ServerSession server)
    cpdef go_on(self, ServerSession server)
    cpdef pause_reading(self)
    cpdef resume_reading(self)
