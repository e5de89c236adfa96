from pgweir.protocol.auth.scram cimport ScramServer


cdef bytes _SASL


cdef class ClientAuthentication:
    cdef public object _method, _user, _secret, _kind, _random, _mock_key, _iterations, _cache, _stage, _receive
    cdef public bint _known
    cdef public bytes _salt
    cdef public ScramServer _exchange

    cpdef bytes start(self)
    cdef _challenge(self, verifier, bytes data)


cdef _blamed(receive, received)
