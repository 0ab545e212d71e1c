/* JSON in a test as it is sent: JSON({"prompt":"a"}) is the text {"prompt":"a"}. Whatever
 * blanks and line ends are between its tokens are one blank each. */
#ifndef VRAMD_TESTS_JSON_H
#define VRAMD_TESTS_JSON_H

#define JSON(...) #__VA_ARGS__

#endif
