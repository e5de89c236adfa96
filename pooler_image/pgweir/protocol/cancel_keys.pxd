cdef int _HOPS


cpdef bytes make_key(bytes noise, int peer_id=*)


cdef class KeyRing:
    cdef public dict _owners

    cpdef add(self, bytes key, owner)
    cpdef remove(self, bytes key)
