cimport cython


cdef class Credentials:
    cdef public object password, scram_keys, secret
    cdef public bint stale

    cdef bint is_like(self, password, scram_keys, secret) except -1


cdef Credentials _NOTHING


cdef class ServerCredentials:
    cdef public object _pooler
    cdef public dict _known, _asked_at
    cdef public set _renewing

    @cython.locals(old=Credentials)
    cpdef learn(self, pool, password, scram_keys, secret)
