/* The option trusted_proxies: whose headers about other clients count. A list of addresses and networks
 * (10.0.0.0/8, fd00::/8, 127.0.0.1), and "unix" for the Unix socket, separated by commas or blanks.
 * Pure; owns nothing. */
#ifndef VRAMD_API_PROXIES_H
#define VRAMD_API_PROXIES_H

#include <stdbool.h>
#include <sys/socket.h>

/* *bad: the first entry that is none of these. */
bool proxies_list_ok(const char *list, const char **bad);
/* Whether the list has the peer of a connection. An IPv4 peer of an IPv6 socket counts as IPv4. */
bool proxies_have(const char *list, const struct sockaddr *peer);

#endif
