from pgweir.session.holder cimport Holder
from pgweir.session.server cimport ServerSession, check_out


cdef class Lookup(Holder):
    cdef public object _done, _pooler, _query, _reader, _result, _user

    cpdef start(self)
    cpdef granted(self, ServerSession server)
    cpdef write(self, bytes data)
    cdef _finish(self, outcome)
