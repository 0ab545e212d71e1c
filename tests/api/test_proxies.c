/* Which peers a list of proxies has. */
#include "api/proxies.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "tests/check_main.h"

static bool has4(const char *list, const char *address) {
    struct sockaddr_in sa = {.sin_family = AF_INET};
    ck_assert_int_eq(inet_pton(AF_INET, address, &sa.sin_addr), 1);
    return proxies_have(list, (const struct sockaddr *)&sa);
}
static bool has6(const char *list, const char *address) {
    struct sockaddr_in6 sa = {.sin6_family = AF_INET6};
    ck_assert_int_eq(inet_pton(AF_INET6, address, &sa.sin6_addr), 1);
    return proxies_have(list, (const struct sockaddr *)&sa);
}

START_TEST(a_network_has_its_addresses_and_no_others) {
    ck_assert(has4("10.0.0.0/8", "10.255.0.1") && !has4("10.0.0.0/8", "11.0.0.1"));
    ck_assert(has4("192.168.1.64/27", "192.168.1.95") &&
              !has4("192.168.1.64/27", "192.168.1.96"));
    ck_assert(has4("192.168.1.7", "192.168.1.7") && !has4("192.168.1.7", "192.168.1.6"));
    ck_assert(has4("0.0.0.0/0", "8.8.8.8") && !has6("0.0.0.0/0", "2001:db8::1"));
    ck_assert(has6("fd00::/8", "fdab::1") && !has6("fd00::/8", "fe80::1"));
    ck_assert(has6("2001:db8::/33", "2001:db8:7fff::1") &&
              !has6("2001:db8::/33", "2001:db8:8000::"));
    ck_assert(has6("::/0", "2001:db8::1"));
}
END_TEST

START_TEST(an_ipv4_peer_of_an_ipv6_socket_is_one_of_ipv4) {
    ck_assert(has6("10.0.0.0/8", "::ffff:10.1.2.3") && !has6("10.0.0.0/8", "::ffff:11.1.2.3"));
}
END_TEST

START_TEST(a_list_has_what_one_of_its_entries_has) {
    const char *list = "127.0.0.1, fd00::/8\tunix";
    ck_assert(has4(list, "127.0.0.1") && has6(list, "fd00::1") && !has4(list, "127.0.0.2"));
    ck_assert(!has4("", "127.0.0.1") && !has6("unix", "::"));
}
END_TEST

START_TEST(the_unix_socket_is_named) {
    const struct sockaddr sa = {.sa_family = AF_UNIX};
    ck_assert(proxies_have("10.0.0.1,unix", &sa) && !proxies_have("::/0,0.0.0.0/0", &sa));
}
END_TEST

START_TEST(what_is_no_network_is_named) {
    static const char *const bad[] = {
        "10.0.0.0/33", "10.0.0/8",
        "fd00::/129",  "10.0.0.1/",
        "gateway",     "10.0.0.1/8x",
        "/8",          "unix/8",
        "10.0.0.1/-1", "1111:2222:3333:4444:5555:6666:7777:8888/1280000"};
    const char *at;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert(!proxies_list_ok(bad[i], &at));
        ck_assert_ptr_eq(at, bad[i]);
        ck_assert(!has4(bad[i], "10.0.0.1"));
    }
    ck_assert(!proxies_list_ok("10.0.0.1, x", &at) && *at == 'x');
    ck_assert(proxies_list_ok("", &at) && proxies_list_ok("10.0.0.1 ::1/128,unix", &at));
}
END_TEST

CHECK_MAIN("proxies", a_network_has_its_addresses_and_no_others,
           an_ipv4_peer_of_an_ipv6_socket_is_one_of_ipv4,
           a_list_has_what_one_of_its_entries_has, the_unix_socket_is_named,
           what_is_no_network_is_named)
