/* The certificate of the front end, which can be replaced while connections go on. Owns the
 * certificate chain and its key. Loop thread.
 *
 * libmicrohttpd takes a certificate once, at start; GnuTLS asks for one in every handshake, and
 * borrows it. Each connection holds on to the one that its handshake has begun with. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "api/http_impl.h"
#include "api/secret.h"
#include "base/log.h"
#include "memory/term.h"

enum { MAX_CHAIN = 8, MAX_FILE = 256 * 1024, KEY_ID_BYTES = 32 };

struct http_identity {
    uint32_t refs;
    unsigned n;
    gnutls_pcert_st chain[MAX_CHAIN]; /* the server's own first */
    gnutls_privkey_t key;
};

struct http_tls {
    http_identity *now;
};

static void identity_unref(http_identity *id) {
    if (!id || --id->refs) return;
    for (unsigned i = 0; i < id->n; i++) gnutls_pcert_deinit(&id->chain[i]);
    if (id->key) gnutls_privkey_deinit(id->key);
    free(id);
}

/* ---- memory ---- */

/* GMP aborts where malloc fails, and libtasn1 4.19 follows the NULL; handshakes and files of
 * keys ask both for a little, a hundred times. So neither is begun unless the heap has what it
 * takes: blocks given back are what glibc's malloc hands out next. Other threads have heaps of
 * their own. GnuTLS itself takes a NULL for what it is, and the connection ends. */
static bool heap_has_space(void) {
    enum { BLOCKS = 12, BYTES = 8 * 1024 };
    char *block[BLOCKS];
    int n = 0;
    for (; n < BLOCKS && (block[n] = malloc(BYTES)); n++)
        *(volatile char *)block[n] = 0; /* else the compiler may believe that it succeeds */
    bool all = n == BLOCKS;
    while (n) free(block[--n]);
    return all;
}

/* GnuTLS joins the records of a handshake message in one buffer, as long as the client says it
 * is: megabytes, before or after the handshake, and gnutls_handshake_set_max_packet_length does
 * not stop it. So from each read until a message is whole no buffer of GnuTLS grows beyond
 * what an honest client sends; it takes the NULL for want of memory, and ends the connection.
 * (Records, of 16 KiB, and sessions are allocated whole, not grown.) */
enum { MESSAGE_BYTES = 8 * 1024 };
static _Thread_local size_t most_bytes; /* 0: no limit */

static void *bounded_realloc(void *p, size_t n) {
    return most_bytes && n > most_bytes ? NULL : realloc(p, n);
}

/* As GnuTLS's own, but for the limit. */
static ssize_t pull(gnutls_transport_ptr_t fd, void *data, size_t n) {
    most_bytes = MESSAGE_BYTES;
    return recv((int)(intptr_t)fd, data, n, 0);
}

/* A message is whole, or one of ours is made: certificates may be long. */
static int before_message(gnutls_session_t session, unsigned type, unsigned when,
                          unsigned incoming, const gnutls_datum_t *msg) {
    (void)session, (void)when, (void)msg;
    most_bytes = 0;
    bool hello = incoming && type == GNUTLS_HANDSHAKE_CLIENT_HELLO;
    return !hello || heap_has_space() ? 0 : GNUTLS_E_MEMORY_ERROR;
}

/* ---- reading ---- */

static status wrong(err *e, const char *field, const char *path, const char *what, int rc) {
    if (rc == GNUTLS_E_MEMORY_ERROR) return mem_exhausted(e, MEM_HTTP, "reading %.200s", path);
    err_set(e, ERR_INVALID, "%.200s: %s: %s", path, what, gnutls_strerror(rc));
    err_hint(e, "PEM is expected: a certificate with its chain in tls_cert, the private key "
                "without a password in tls_key");
    return err_field(e, "%s", field);
}

/* The whole of an open file, with a NUL; the caller frees it. */
static status slurp(FILE *f, gnutls_datum_t *out, const char *path, const char *field, err *e) {
    out->data = malloc(MAX_FILE + 1);
    if (!out->data) return mem_exhausted(e, MEM_HTTP, "reading %.200s", path);
    size_t n = fread(out->data, 1, MAX_FILE + 1, f);
    out->size = (unsigned)n;
    status s = OK;
    if (n > MAX_FILE) {
        err_set(e, ERR_INVALID, "%.200s has more than %d bytes", path, MAX_FILE);
        s = err_field(e, "%s", field);
    }
    if (s == OK) s = secret_steady(f, path, field, e);
    if (s != OK) free(out->data);
    return s;
}

static void tell(gnutls_x509_crt_t cert, const char *path) {
    unsigned char serial[32];
    char hex[2 * sizeof serial + 1] = "", until[32] = "?";
    size_t n = sizeof serial;
    time_t end = gnutls_x509_crt_get_expiration_time(cert);
    struct tm tm;
    if (gnutls_x509_crt_get_serial(cert, serial, &n) == 0)
        for (size_t i = n > 1 && !serial[0], k = 0; i < n; i++, k += 2) /* a 0 is a sign */
            sprintf(hex + k, "%02x", serial[i]);
    if (gmtime_r(&end, &tm)) strftime(until, sizeof until, "%Y-%m-%dT%H:%M:%SZ", &tm);
    log_line(end > time(NULL) ? LOG_INFO : LOG_WARN, "TLS: %s serial=%s valid until %s%s", path,
             hex, until, end > time(NULL) ? "" : ": it has expired");
}

/* own: the server's certificate, to be told; the caller deinits it. */
static status read_chain(http_identity *id, gnutls_x509_crt_t *own, const char *path, err *e) {
    gnutls_datum_t pem;
    FILE *f = fopen(path, "re");
    if (!f && errno == ENOMEM) return mem_exhausted(e, MEM_HTTP, "opening %.200s", path);
    if (!f) {
        err_set(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot open %.200s: %s", path,
                strerror(errno));
        return err_field(e, "tls_cert");
    }
    status s = slurp(f, &pem, path, "tls_cert", e);
    fclose(f);
    if (s != OK) return s;
    gnutls_x509_crt_t list[MAX_CHAIN];
    unsigned n = MAX_CHAIN;
    int rc = gnutls_x509_crt_list_import(list, &n, &pem, GNUTLS_X509_FMT_PEM,
                                         GNUTLS_X509_CRT_LIST_IMPORT_FAIL_IF_EXCEED);
    free(pem.data);
    if (rc < 0) return wrong(e, "tls_cert", path, "no certificate", rc);
    while (id->n < n && (rc = gnutls_pcert_import_x509(&id->chain[id->n], list[id->n], 0)) == 0)
        id->n++;
    *own = list[0];
    for (unsigned i = 1; i < n; i++) gnutls_x509_crt_deinit(list[i]);
    return rc == 0 ? OK : wrong(e, "tls_cert", path, "no certificate", rc);
}

static status read_key(http_identity *id, const char *path, err *e) {
    gnutls_datum_t pem;
    FILE *f;
    status s = secret_open(&f, path, MAX_FILE, "tls_key", e);
    if (s != OK) return s;
    s = slurp(f, &pem, path, "tls_key", e);
    fclose(f);
    if (s != OK) return s;
    int rc = gnutls_privkey_init(&id->key);
    if (rc == 0)
        rc = gnutls_privkey_import_x509_raw(id->key, &pem, GNUTLS_X509_FMT_PEM, NULL, 0);
    gnutls_memset(pem.data, 0, pem.size);
    free(pem.data);
    return rc == 0 ? OK : wrong(e, "tls_key", path, "no private key", rc);
}

static int key_id_of_private(gnutls_privkey_t key, unsigned char *out, size_t *n) {
    gnutls_pubkey_t public;
    int rc = gnutls_pubkey_init(&public);
    if (rc != 0) return rc;
    rc = gnutls_pubkey_import_privkey(public, key, 0, 0);
    if (rc == 0) rc = gnutls_pubkey_get_key_id(public, GNUTLS_KEYID_USE_SHA256, out, n);
    gnutls_pubkey_deinit(public);
    return rc;
}

static status check_pair(const http_identity *id, const server_options *o, err *e) {
    unsigned char of_cert[KEY_ID_BYTES], of_key[KEY_ID_BYTES];
    size_t n = sizeof of_cert, k = sizeof of_key;
    int rc =
        gnutls_pubkey_get_key_id(id->chain[0].pubkey, GNUTLS_KEYID_USE_SHA256, of_cert, &n);
    if (rc == 0) rc = key_id_of_private(id->key, of_key, &k);
    if (rc != 0) return wrong(e, "tls_key", o->tls_key, "no key to compare", rc);
    if (n == k && memcmp(of_cert, of_key, n) == 0) return OK;
    err_set(e, ERR_INVALID, "%.150s is not the key of the first certificate in %.150s",
            o->tls_key, o->tls_cert);
    return err_field(e, "tls_key");
}

static status read_once(http_identity **out, const server_options *o, err *e) {
    gnutls_x509_crt_t own = NULL;
    http_identity *id = heap_has_space() ? calloc(1, sizeof *id) : NULL;
    if (!id) return mem_exhausted(e, MEM_HTTP, "TLS");
    id->refs = 1;
    status s = read_chain(id, &own, o->tls_cert, e);
    if (s == OK) s = read_key(id, o->tls_key, e);
    if (s == OK) s = check_pair(id, o, e);
    if (s == OK) tell(own, o->tls_cert);
    if (own) gnutls_x509_crt_deinit(own);
    if (s != OK)
        identity_unref(id);
    else
        *out = id;
    return s;
}

/* GnuTLS takes some failures of malloc for damage of the file. Before a file is blamed it is
 * read again, which begins with a look at the heap. */
static status identity_read(http_identity **out, const server_options *o, err *e) {
    most_bytes = 0;
    status s = read_once(out, o, e);
    return s == ERR_INVALID ? read_once(out, o, e) : s;
}

/* ---- for http.c ---- */

status http_tls_open(http_tls **out, const server_options *o, err *e) {
    *out = NULL;
    http_tls *t = calloc(1, sizeof *t);
    if (!t) return mem_exhausted(e, MEM_HTTP, "TLS");
    gnutls_realloc = bounded_realloc;
    status s = identity_read(&t->now, o, e);
    if (s != OK)
        free(t);
    else
        *out = t;
    return s;
}

status http_tls_load(http_tls *t, const server_options *o, err *e) {
    http_identity *fresh;
    status s = identity_read(&fresh, o, e);
    if (s != OK) return s;
    identity_unref(t->now);
    t->now = fresh;
    return OK;
}

void http_tls_close(http_tls *t) {
    if (!t) return;
    identity_unref(t->now);
    free(t);
}

void http_tls_attach(http_tls *t, http_conn *c) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c->mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    if (!info || !info->tls_session) return;
    c->tls = t;
    gnutls_session_set_ptr(info->tls_session, c);
    gnutls_transport_set_pull_function(info->tls_session, pull);
    gnutls_handshake_set_hook_function(info->tls_session, GNUTLS_HANDSHAKE_ANY, GNUTLS_HOOK_PRE,
                                       before_message);
}

void http_tls_detach(http_conn *c) {
    identity_unref(c->identity);
    c->identity = NULL;
}

int http_tls_certificate(struct gnutls_session_int *session,
                         const struct gnutls_cert_retr_st *info, gnutls_pcert_st **chain,
                         unsigned *n_chain, gnutls_ocsp_data_st **ocsp, unsigned *n_ocsp,
                         struct gnutls_privkey_st **key, unsigned *flags) {
    http_conn *c = gnutls_session_get_ptr(session);
    (void)info, (void)flags;
    if (!c) return -1; /* refused when it connected */
    http_identity *now = c->tls->now;
    now->refs++;
    identity_unref(c->identity); /* of a handshake before, on this connection */
    c->identity = now;
    *chain = now->chain, *n_chain = now->n, *key = now->key;
    *ocsp = NULL, *n_ocsp = 0;
    return 0;
}
