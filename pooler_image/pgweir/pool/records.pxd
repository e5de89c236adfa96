cdef object _CLIENT_LOGIN


cdef class ServerRecord:
    cdef public object id, state
    cdef public double connected_at, requested_at, released_at, checked_at
    cdef public double query_started, transaction_started, settled_at
    cdef public bint opened_for_client, close_needed, own_query, query_open, in_transaction


cdef class ClientRecord:
    cdef public object id, state
    cdef public double connected_at, requested_at, waiting_since
    cdef public bint notified

    cdef _begin_record(self, double now)
