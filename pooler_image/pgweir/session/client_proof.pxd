cimport cython

from pgweir.protocol.auth.client_auth cimport ClientAuthentication, Continue, Succeeded, asks_nothing
from pgweir.protocol.reader cimport MessageReader
from pgweir.session.parts cimport Parts


cdef int _PASSWORD


cdef class ClientProof:
    cdef public object secret
    cdef public Parts _pooler
    cdef public object _login, _database, _ldap, _exchange
    cdef public MessageReader _reader
    cdef public ClientAuthentication _authentication
    cdef public bint _busy, _has_turn, _looking_up, _looked_up_secret, _is_paused

    @cython.locals(pooler=Parts)
    cpdef begin(self)
    cpdef failed(self)
    @cython.locals(body=bytes, authentication=ClientAuthentication)
    cpdef data_received(self, bytes data)
    cdef _method(self)
    cdef bint _is_named(self, system_user, ident_map)
    cdef _take_secret(self, outcome)
    @cython.locals(pooler=Parts)
    cdef _start(self, stage)
    cdef _succeed(self, proof)
    cdef _answer(self, answer)
    cdef _refuse(self, error)
    cdef _free(self)
