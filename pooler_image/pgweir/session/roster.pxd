from pgweir.session.client cimport ClientSession

cdef object _CLIENT_CLOSED


cdef class Logins:
    cdef public object _pooler
    cdef public set _all
    cdef public dict _silent

    cpdef add(self, login)
    cpdef has_started(self, login)
    cpdef discard(self, login)


cdef class Roster:
    cdef public object _pooler
    cdef public Logins logins
    cdef public set clients
    cdef public dict of_database, of_user

    cpdef Py_ssize_t count(self)
    cpdef entered(self, ClientSession client)
    cpdef left(self, ClientSession client, reason, message)


cdef _one_less(dict counts, name)
