cimport cython

from pgweir.protocol.reader cimport MessageReader
from pgweir.session.client cimport ClientSession
from pgweir.session.client_proof cimport ClientProof


cdef class ClientLogin:
    cdef public object pooler, wire, origin, tls, user, database_name, protocol_minor
    cdef public double started_at
    cdef public bint is_over, is_proved
    cdef public object _startup_reader, _receive, _plan, _database, _early, _declined
    cdef public double _checked_at, _paused_for
    cdef public MessageReader _reader
    cdef public ClientProof _proof
    cdef public ClientSession _client

    cpdef data_received(self, data)
    cdef bint _tls_offered(self)
    cdef _decline(self, request)
    cdef _upgrade(self, first_bytes)
    cdef _planned(self, startup, packet)
    cdef _begin(self, plan, minor, negotiation)
    cdef _begin_console(self)
    cdef _ask_for_proof(self)
    @cython.locals(now=double, client=ClientSession)
    cpdef proved(self, proof)
    cdef _check_client_limits(self, database)
    @cython.locals(client=ClientSession)
    cpdef _welcome(self)
    cdef _greeting(self, pool, requested)
    cdef _count_failure(self, stage)
    cpdef leave(self)
    cdef _end(self)
    cdef _let_go(self)
