cimport cython

from pgweir.pool.records cimport ClientRecord, ServerRecord
from pgweir.pool.stats cimport Stats

cdef object _SERVER_ACTIVE, _SERVER_IDLE, _CLIENT_ACTIVE, _CLIENT_WAITING, _CLIENT_WAITING_LOGIN
cdef double ALIVE_FOR


cdef class Turns:
    cdef public Stats stats
    cdef public object _policy, idle, used, waiting, waiting_login, clients, welcome
    cdef public set active, logging_in
    cdef public dict greetings
    cdef public Py_ssize_t server_count, size
    cdef public double emptied_at, lifetime
    cdef public bint paused, proven, hands_over, one_statement, round_robin

    cpdef bint alive(self, double now)
    cpdef check_out(self, ClientRecord client, double now)
    cpdef assign(self, ServerRecord server, ClientRecord client, double now)
    cpdef put_back(self, ServerRecord server)
    cpdef forget_client(self, ClientRecord client)
    cpdef leave_queue(self, ClientRecord client)
