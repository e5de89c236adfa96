cimport cython

from pgweir.pool.stats cimport Stats
from pgweir.protocol cimport framing
from pgweir.protocol.exchange cimport Exchange
from pgweir.protocol.prepared cimport Owed, ServerStatements, Statement, bind_names_end
from pgweir.session.server cimport ServerSession

cdef int BIND, CLOSE, DESCRIBE, PARSE, STATUS_FAILED, STATUS_IDLE


@cython.locals(body=Py_ssize_t, portal_end=Py_ssize_t, statement_end=Py_ssize_t, exchange=Exchange, stats=Stats, statement=Statement, name=bytes)
cpdef tuple rewrite(int kind, bytes data, Py_ssize_t pos, Py_ssize_t end, dict statements, ServerSession server)
@cython.locals(exchange=Exchange, stats=Stats, statement=Statement, known=Statement, name=bytes)
cdef tuple _rewrite_parse(bytes body, Py_ssize_t end, dict statements, ServerSession server)
@cython.locals(exchange=Exchange)
cdef bytes _ensure_prepared(Statement statement, ServerSession server)
cdef bytes _close_stale(Statement statement, Exchange exchange)
@cython.locals(exchange=Exchange)
cdef bytes _note_prepared(Statement statement, ServerSession server)
