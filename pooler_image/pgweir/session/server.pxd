cimport cython

from pgweir.pool.records cimport ServerRecord
from pgweir.pool.stats cimport Stats
from pgweir.pool.turns cimport Turns
from pgweir.protocol.exchange cimport Exchange
from pgweir.session.essentials cimport Essentials


cdef class ServerSession(ServerRecord)  # known to what is below, which names it
from pgweir.session.holder cimport Holder

cdef object _CLIENT_ACTIVE, _CLIENT_IDLE
cdef int STATUS_IDLE


cdef class ServerSession(ServerRecord):
    cdef public Exchange exchange
    cdef public Holder client
    cdef public Turns pool
    cdef public Essentials pooler
    cdef public object wire, internal, values, cancel_waiters, credentials, tls
    cdef public object host, address, local_address, application_name, cancel_key
    cdef public object pid, port, local_port
    cdef public bint reading_paused, write_paused, in_hot_standby

    @cython.locals(exchange=Exchange, client=Holder)
    cpdef data_received(self, bytes data)
    @cython.locals(exchange=Exchange, now=double, stats=Stats)
    cpdef _settled(self, Holder client)
    cpdef join(self, Holder holder)
    @cython.locals(holder=Holder, first=Holder, pool=Turns)
    cpdef release(self, double now)
    cpdef pause_reading(self)
    cpdef resume_reading(self)


@cython.locals(pool=Turns, server=ServerSession)
cpdef ServerSession check_out(Essentials pooler, Holder holder)
