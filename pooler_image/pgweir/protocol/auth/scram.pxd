cimport cython


cdef bytes _PRINTABLE, _INNER, _OUTER
cdef object _sha256


cdef class ScramServer:
    cdef public object _verifier
    cdef public bytes _server_nonce, _gs2_header, _nonce, _auth_message

    cpdef bytes first(self, bytes client_first)
    cpdef final(self, bytes client_final)


cdef list _split(bytes data, int count)
cdef bytes _attribute(bytes part, bytes name)
cdef bint _is_nonce(bytes nonce)
cpdef bytes _hmac(bytes key, bytes data)
cdef bytes _xor(bytes left, bytes right)
cdef bytes _b64(bytes data)
