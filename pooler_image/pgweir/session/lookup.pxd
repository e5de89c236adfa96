cimport cython

from pgweir.session.holder cimport Holder
from pgweir.session.server cimport ServerSession, check_out


cdef object _CLIENT_IDLE
cdef tuple _ASKED


cdef class Way:
    cdef public object config, auth_user, target, query, settings, welcome, defaults
    cdef public tuple pool_key
    cdef public Py_ssize_t epoch


cdef class Lookup(Holder)


cdef class Lookups:
    cdef public object _pooler, _kept, last_ok, last_error
    cdef public dict _ways, _running, _asking, answers

    cpdef Way way(self, database)
    @cython.locals(key=tuple, way=Way, waiting=list, lookup=Lookup)
    cpdef ask(self, database, user, answer, bint anew=*)
    cpdef done(self, key, outcome)


cdef class Lookup(Holder):
    cdef public object _pooler, _reader, _result
    cdef public tuple _key
    cdef public Way _way
    cdef public bint _is_done

    @cython.locals(way=Way)
    cpdef start(self)
    cpdef granted(self, ServerSession server)
    cpdef write(self, bytes data)
    cdef _finish(self, outcome)
