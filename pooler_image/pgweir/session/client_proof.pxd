cimport cython

from pgweir.protocol.auth.client_auth cimport ClientAuthentication
from pgweir.protocol.reader cimport MessageReader


cdef class ClientProof:
    cdef public object secret
    cdef public object _login, _pooler, _database, _ldap, _exchange
    cdef public MessageReader _reader
    cdef public ClientAuthentication _authentication
    cdef public bint _busy, _has_turn, _looking_up, _looked_up_secret, _is_paused

    cpdef begin(self)
    cpdef failed(self)
    cpdef data_received(self, bytes data)
    cdef _method(self)
    cdef bint _is_named(self, system_user, ident_map)
    cdef _take_secret(self, outcome)
    cdef _start(self, stage)
    cdef _succeed(self, proof)
    cdef _refuse(self, error)
    cdef _free(self)
