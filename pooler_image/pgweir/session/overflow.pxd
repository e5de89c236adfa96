from pgweir.session.roster cimport Roster


cdef class Overflow:
    cdef public object _pooler
    cdef public Roster _roster
    cdef public dict waiting
    cdef public bint _admitting

    cpdef bint admits(self, login) except -1
    cpdef leave(self, login)
    cpdef admit(self)
