/* The certificate of the front end, which can be replaced while connections go on. Owns the
 * certificate chain and its key. Loop thread.
 *
 * libmicrohttpd takes a certificate once, at start; GnuTLS asks for one in every handshake.
 * Each handshake gets a copy of its own, which GnuTLS frees: a handshake that is under way when
 * the certificate is replaced keeps what it has begun with. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "api/http_impl.h"
#include "api/secret.h"
#include "base/log.h"

enum { MAX_CHAIN = 8, MAX_FILE = 256 * 1024, KEY_ID_BYTES = 32 };

typedef struct identity {
    gnutls_x509_crt_t chain[MAX_CHAIN]; /* the server's own first */
    unsigned n;
    gnutls_x509_privkey_t key;
} identity;

struct http_tls {
    identity now;
};

static void identity_clear(identity *id) {
    for (unsigned i = 0; i < id->n; i++) gnutls_x509_crt_deinit(id->chain[i]);
    if (id->key) gnutls_x509_privkey_deinit(id->key);
    *id = (identity){0};
}

/* ---- reading ---- */

static status wrong(err *e, const char *field, const char *path, const char *what, int rc) {
    err_set(e, ERR_INVALID, "%.200s: %s: %s", path, what, gnutls_strerror(rc));
    err_hint(e, "PEM is expected: a certificate with its chain in tls_cert, the private key "
                "without a password in tls_key");
    return err_field(e, "%s", field);
}

/* The whole of an open file, with a NUL; the caller frees it. */
static status slurp(FILE *f, gnutls_datum_t *out, const char *path, const char *field, err *e) {
    out->data = malloc(MAX_FILE + 1);
    if (!out->data) return err_set(e, ERR_NO_MEMORY, "no memory to read %.200s", path);
    size_t n = fread(out->data, 1, MAX_FILE + 1, f);
    out->size = (unsigned)n;
    if (ferror(f))
        err_set(e, ERR_IO, "cannot read %.200s: %s", path, strerror(errno));
    else if (n > MAX_FILE)
        err_set(e, ERR_INVALID, "%.200s has more than %d bytes", path, MAX_FILE);
    else
        return OK;
    free(out->data);
    return err_field(e, "%s", field);
}

static status read_chain(identity *id, const char *path, err *e) {
    gnutls_datum_t pem;
    FILE *f = fopen(path, "re");
    if (!f) {
        err_set(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot open %.200s: %s", path,
                strerror(errno));
        return err_field(e, "tls_cert");
    }
    status s = slurp(f, &pem, path, "tls_cert", e);
    fclose(f);
    if (s != OK) return s;
    unsigned n = MAX_CHAIN;
    int rc = gnutls_x509_crt_list_import(id->chain, &n, &pem, GNUTLS_X509_FMT_PEM,
                                         GNUTLS_X509_CRT_LIST_IMPORT_FAIL_IF_EXCEED);
    free(pem.data);
    if (rc < 0) return wrong(e, "tls_cert", path, "no certificate", rc);
    id->n = n;
    return OK;
}

static status read_key(identity *id, const char *path, err *e) {
    gnutls_datum_t pem;
    FILE *f;
    status s = secret_open(&f, path, MAX_FILE, "tls_key", e);
    if (s != OK) return s;
    s = slurp(f, &pem, path, "tls_key", e);
    fclose(f);
    if (s != OK) return s;
    int rc = gnutls_x509_privkey_init(&id->key);
    if (rc == 0) rc = gnutls_x509_privkey_import2(id->key, &pem, GNUTLS_X509_FMT_PEM, NULL, 0);
    gnutls_memset(pem.data, 0, pem.size);
    free(pem.data);
    return rc == 0 ? OK : wrong(e, "tls_key", path, "no private key", rc);
}

static status check_pair(const identity *id, const server_options *o, err *e) {
    unsigned char of_cert[KEY_ID_BYTES], of_key[KEY_ID_BYTES];
    size_t n = sizeof of_cert, k = sizeof of_key;
    int rc = gnutls_x509_crt_get_key_id(id->chain[0], GNUTLS_KEYID_USE_SHA256, of_cert, &n);
    if (rc == 0)
        rc = gnutls_x509_privkey_get_key_id(id->key, GNUTLS_KEYID_USE_SHA256, of_key, &k);
    if (rc != 0) return wrong(e, "tls_key", o->tls_key, "no key to compare", rc);
    if (n == k && memcmp(of_cert, of_key, n) == 0) return OK;
    err_set(e, ERR_INVALID, "%.150s is not the key of the first certificate in %.150s",
            o->tls_key, o->tls_cert);
    return err_field(e, "tls_key");
}

static status identity_read(identity *id, const server_options *o, err *e) {
    *id = (identity){0};
    status s = read_chain(id, o->tls_cert, e);
    if (s == OK) s = read_key(id, o->tls_key, e);
    if (s == OK) s = check_pair(id, o, e);
    if (s != OK) identity_clear(id);
    return s;
}

static void tell(const identity *id, const char *path) {
    unsigned char serial[32];
    char hex[2 * sizeof serial + 1] = "", until[32] = "?";
    size_t n = sizeof serial;
    time_t end = gnutls_x509_crt_get_expiration_time(id->chain[0]);
    struct tm tm;
    if (gnutls_x509_crt_get_serial(id->chain[0], serial, &n) == 0)
        for (size_t i = n > 1 && !serial[0], k = 0; i < n; i++, k += 2) /* a 0 is a sign */
            sprintf(hex + k, "%02x", serial[i]);
    if (gmtime_r(&end, &tm)) strftime(until, sizeof until, "%Y-%m-%dT%H:%M:%SZ", &tm);
    log_line(end > time(NULL) ? LOG_INFO : LOG_WARN, "TLS: %s serial=%s valid until %s%s", path,
             hex, until, end > time(NULL) ? "" : ": it has expired");
}

/* ---- for http.c ---- */

status http_tls_open(http_tls **out, const server_options *o, err *e) {
    *out = NULL;
    http_tls *t = calloc(1, sizeof *t);
    if (!t) return err_set(e, ERR_NO_MEMORY, "no memory for TLS");
    status s = http_tls_load(t, o, e);
    if (s != OK)
        free(t);
    else
        *out = t;
    return s;
}

status http_tls_load(http_tls *t, const server_options *o, err *e) {
    identity fresh;
    status s = identity_read(&fresh, o, e);
    if (s != OK) return s;
    identity_clear(&t->now);
    t->now = fresh;
    tell(&t->now, o->tls_cert);
    return OK;
}

void http_tls_close(http_tls *t) {
    if (!t) return;
    identity_clear(&t->now);
    free(t);
}

void http_tls_attach(http_tls *t, struct MHD_Connection *m) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(m, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    if (info && info->tls_session) gnutls_session_set_ptr(info->tls_session, t);
}

int http_tls_certificate(struct gnutls_session_int *session,
                         const struct gnutls_cert_retr_st *info, gnutls_pcert_st **chain,
                         unsigned *n_chain, gnutls_ocsp_data_st **ocsp, unsigned *n_ocsp,
                         struct gnutls_privkey_st **key, unsigned *flags) {
    const http_tls *t = gnutls_session_get_ptr(session);
    unsigned n = 0;
    gnutls_privkey_t k = NULL;
    (void)info;
    if (!t) return -1;
    gnutls_pcert_st *list = gnutls_calloc(t->now.n, sizeof *list);
    if (!list) return -1;
    while (n < t->now.n && gnutls_pcert_import_x509(&list[n], t->now.chain[n], 0) == 0) n++;
    if (n == t->now.n && gnutls_privkey_init(&k) == 0 &&
        gnutls_privkey_import_x509(k, t->now.key, GNUTLS_PRIVKEY_IMPORT_COPY) == 0) {
        *chain = list, *n_chain = n, *key = k;
        *ocsp = NULL, *n_ocsp = 0;
        *flags |= GNUTLS_CERT_RETR_DEINIT_ALL;
        return 0;
    }
    if (k) gnutls_privkey_deinit(k);
    while (n) gnutls_pcert_deinit(&list[--n]);
    gnutls_free(list);
    return -1;
}
