cdef object _NOTHING


cdef class ServerCredentials:
    cdef public object _pooler
    cdef public dict _known, _asked_at
    cdef public set _renewing

    cpdef learn(self, pool, password, scram_keys, secret)
