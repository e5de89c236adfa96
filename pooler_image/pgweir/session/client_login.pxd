cimport cython

from pgweir.protocol.auth.client_auth cimport Succeeded
from pgweir.protocol.reader cimport MessageReader
from pgweir.session.client cimport ClientSession
from pgweir.session.client_proof cimport ClientProof
from pgweir.session.parts cimport Parts
from pgweir.session.startups cimport KnownStartup, planned
from pgweir.session.wire cimport Origin

cdef int _STARTUP, _HANDSHAKE, _QUEUED, _PROOF, _PROVED
cdef bytes _LONG_KEY, _SHORT_KEY
cdef object _CLIENT_IDLE
cdef Py_ssize_t SHORT_KEY


cdef class ClientLogin:
    cdef public Parts pooler
    cdef public Origin origin
    cdef public object wire, tls, user, database_name
    cdef public double started_at
    cdef public bint is_over, is_proved
    cdef public int protocol_minor
    cdef public object _startup_reader, _database, _declined
    cdef public bytes _early
    cdef public int _stage
    cdef public double _checked_at, _paused_for
    cdef public MessageReader _reader
    cdef public KnownStartup _wish
    cdef public ClientProof _proof
    cdef public ClientSession _client

    cpdef data_received(self, bytes data)
    @cython.locals(known=KnownStartup)
    cdef _receive_startup(self, bytes data)
    cdef bint _tls_offered(self)
    cdef _decline(self, request)
    cdef _upgrade(self, first_bytes)
    @cython.locals(pooler=Parts)
    cdef _begin(self, KnownStartup wish)
    cpdef admitted(self)
    cdef _receive_queued(self, bytes data)
    cdef _begin_console(self)
    cdef _ask_for_proof(self)
    @cython.locals(now=double, client=ClientSession, wish=KnownStartup, pooler=Parts)
    cpdef proved(self, Succeeded proof)
    @cython.locals(limit=Py_ssize_t)
    cdef _check_client_limits(self, KnownStartup wish)
    cdef _receive_early(self, bytes data)
    cpdef _welcome(self)
    @cython.locals(wish=KnownStartup, pooler=Parts, greeting=bytes, cancel_key=bytes, header=bytes)
    cdef _greet(self, ClientSession client, double now)
    @cython.locals(known=tuple)
    cdef tuple _greeting(self, pool, dict requested, tuple key)
    cdef _count_failure(self, stage)
    cpdef leave(self)
    cdef _end(self)
    cdef _let_go(self)


@cython.locals(login=ClientLogin)
cpdef ClientLogin accepted(Parts pooler, wire, Origin origin)
