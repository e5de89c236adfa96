cimport cython

from pgweir.protocol cimport framing

cdef bytes _INNER, _OUTER
cdef object _from_base64, _is_same, _sha256, _to_base64
cdef int _NAME, _NONCE, _CHANNEL, _SALT, _ITERATIONS, _SIGNATURE, _EQUALS


cdef class ScramKeys:
    cdef public bytes client_key, server_key


cdef class Mac:
    cdef public object _inner, _outer

    cpdef bytes of(self, bytes data)


cdef class Verifier:
    cdef public object iterations
    cdef public bytes salt, stored_key, server_key, asks
    cdef public Mac _proofs, _signatures

    @cython.locals(proofs=Mac)
    cpdef bytes masks(self, bytes auth_message)
    @cython.locals(signatures=Mac)
    cpdef bytes signs(self, bytes auth_message)


cdef class ScramServer:
    cdef public Verifier _verifier
    cdef public bytes _server_nonce, _binding, _nonce, _auth_message

    cpdef bytes first(self, bytes client_first)
    @cython.locals(verifier=Verifier, auth_message=bytes, client_key=bytes, without_proof=bytes, proof=bytes)
    cpdef final(self, bytes client_final)


cpdef parse_verifier(str text)
cdef list _split(bytes data, int count)
cdef bytes _attribute(bytes part, int name)
@cython.locals(byte=cython.uchar)
cdef bint _is_nonce(bytes nonce) except -1
cpdef bytes _hmac(bytes key, bytes data)
@cython.locals(size=Py_ssize_t, at=Py_ssize_t, both=bytearray)
cdef bytes _xor(bytes left, bytes right)
cdef bytes _b64(bytes data)
cdef bytes _unbase64(bytes text)
