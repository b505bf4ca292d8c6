/* hiredis.h - what takes its place in a build for libvalkey; names.h. */
#include <valkey/valkey.h>
