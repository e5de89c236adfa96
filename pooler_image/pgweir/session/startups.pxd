from pgweir.session.parts cimport Parts

cdef bytes _READY


cdef class KnownStartup:
    cdef public object plan, config, settings, user, database, application_name
    cdef public int minor
    cdef public bytes negotiation, ending
    cdef public dict variables
    cdef public tuple key, pool_key
    cdef public bint is_console, is_logged, is_replication, names_host, needs_certificate, needs_tls
    cdef public Py_ssize_t clients_of_database, clients_of_user

    cpdef follow(self, config)
    cpdef find_pool(self, database)


cpdef KnownStartup planned(Parts pooler, startup, bytes packet)
