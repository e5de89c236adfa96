cimport cython

from pgweir.protocol cimport framing
from pgweir.protocol.exchange cimport Exchange
from pgweir.session.essentials cimport Essentials
from pgweir.session.holder cimport Holder
from pgweir.session.rewriting cimport rewrite
from pgweir.session.server cimport ServerSession, check_out

cdef int BIND, CLOSE, COPY_DATA, COPY_DONE, COPY_FAIL, DESCRIBE, EXECUTE, FLUSH, FUNCTION_CALL, PARSE, QUERY
cdef int SYNC, TERMINATE, _D, _PORTAL
cdef object _CLIENT_IDLE, _CLIENT_CLOSE
cdef Py_ssize_t REPLAY_LIMIT


cdef class ClientSession(Holder):
    cdef public object address, application_name, cancel_key, close_reason, database, held, login, origin
    cdef public Essentials pooler
    cdef public object tls, user
    cdef public dict statements
    cdef public Py_ssize_t discard, wanted
    cdef public bint reading_paused, rewrites

    @cython.locals(server=ServerSession)
    cpdef data_received(self, bytes data)
    @cython.locals(exchange=Exchange, pooler=Essentials, size=Py_ssize_t, pos=Py_ssize_t, start=Py_ssize_t, end=Py_ssize_t, length=Py_ssize_t, longest=Py_ssize_t, kind=int, pieces=list, owed=list)
    cdef _forward(self, bytes data, ServerSession server)
    cpdef granted(self, ServerSession server)
    cdef bytes _take_held(self)
    cdef _forward_held(self, ServerSession server)
    cdef _send(self, ServerSession server, list pieces, bytes last)
    @cython.locals(size=Py_ssize_t, pos=Py_ssize_t, end=Py_ssize_t, length=Py_ssize_t, kind=int, replies=list)
    cdef bytes _without_server(self, bytes data)
    cdef _reply(self, bytes data)
    cpdef policy_changed(self)
    cpdef pause_reading(self)
    cpdef resume_reading(self)
