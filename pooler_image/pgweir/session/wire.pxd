cdef class Origin:
    cdef public object address, local_address, peer_user, peer_pid, port, local_port
    cdef public bint is_own_uid


cpdef close_in_time(edge, wire)
