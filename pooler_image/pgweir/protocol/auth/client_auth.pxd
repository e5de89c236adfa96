cimport cython

from pgweir.protocol cimport framing
from pgweir.protocol.auth.scram cimport ScramServer, Verifier, parse_verifier


cdef bytes _SASL, _MD5_REQUEST, _CHOSEN
cdef object _is_same, _EMPTY, _PLAIN, _MD5, _SCRAM
cdef int _PASSWORD, _UNASKED, _CLEARTEXT, _FOR_OTHERS, _MD5_ANSWER, _SASL_CHOICE, _SASL_FIRST, _SASL_FINAL


cdef class Continue:
    cdef public bytes data


cdef class Succeeded:
    cdef public bytes data
    cdef public object scram_keys, password


cdef class ClientAuthentication:
    cdef public object _method, _user, _secret, _kind, _random, _mock_key, _iterations, _cache, _stage
    cdef public bint _known
    cdef public int _expects
    cdef public bytes _salt
    cdef public Verifier _stored
    cdef public ScramServer _exchange

    cpdef bytes start(self)
    @cython.locals(expects=cython.int)
    cpdef receive(self, int type_, bytes body)
    cdef _judge(self, int expects, bytes body)
    cdef _md5(self, bytes body)
    @cython.locals(at=Py_ssize_t, size=Py_ssize_t)
    cdef _sasl_choice(self, bytes body)
    cdef _sasl_first(self, bytes data)
    cdef _challenge(self, Verifier verifier, bytes data)
    cdef _sasl_final(self, bytes data)
    cdef _verifier(self)


@cython.locals(end=Py_ssize_t)
cdef bytes _sent_password(bytes body)
cpdef bint asks_nothing(method, bint known) except -1
