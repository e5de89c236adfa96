cimport cython

from pgweir.protocol cimport framing

cdef int _HOPS
cdef tuple _SEVEN_BITS


cpdef bytes make_key(bytes noise, int peer_id=*)


cdef class KeyRing:
    cdef public dict _owners

    cpdef add(self, bytes key, owner)
    cpdef remove(self, bytes key)
    @cython.locals(entry=tuple)
    cpdef bint has(self, bytes key) except -1


cdef tuple _without(tuple entry, bytes key)
