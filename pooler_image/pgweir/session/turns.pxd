cimport cython


cdef class Turns:
    cdef public object _edge, _waiting
    cdef public int _used
    cdef public Py_ssize_t _round
    cdef public bint _is_ending

    @cython.locals(now=Py_ssize_t)
    cpdef bint take(self) except -1
    cpdef wait(self, step)
    cdef _ask_for_next(self)
