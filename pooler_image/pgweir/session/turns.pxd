cimport cython




cdef class Turns:
    cdef public object _edge, _waiting
    cdef public int _used
    cdef public double _used_at
    cdef public bint _is_ending

    @cython.locals(now=double)
    cpdef bint take(self)
    cpdef wait(self, step)
    cdef _ask_for_next(self)
