/* names.h - compiles src/client for libvalkey instead of hiredis: libvalkey is a fork that kept the shapes and changed the names. Comes
 * before everything else (-include), with this directory first in the include path; packaging/valkey.mk. */
#ifndef RSHM_VALKEY_NAMES_H
#define RSHM_VALKEY_NAMES_H

#define RSHM_LIBVALKEY 1
/* libvalkey 0.1 began where hiredis 1.2 was. */
#define HIREDIS_MAJOR 1
#define HIREDIS_MINOR 2

/* theirs */
#define redisAppendCommandArgv valkeyAppendCommandArgv
#define redisAsyncCommandArgv valkeyAsyncCommandArgv
#define redisAsyncContext valkeyAsyncContext
#define redisAsyncHandleRead valkeyAsyncHandleRead
#define redisAsyncRead valkeyAsyncRead
#define redisAsyncWrite valkeyAsyncWrite
#define redisBufferWrite valkeyBufferWrite
#define redisCallbackFn valkeyCallbackFn
#define redisContext valkeyContext
#define redisContextFuncs valkeyContextFuncs
#define redisGetReply valkeyGetReply
#define redisReader valkeyReader
#define redisReaderCreate valkeyReaderCreate
#define redisReaderCreateWithFunctions valkeyReaderCreateWithFunctions
#define redisReaderFeed valkeyReaderFeed
#define redisReaderFree valkeyReaderFree
#define redisReaderGetReply valkeyReaderGetReply
#define redisReply valkeyReply
#define REDIS_BLOCK VALKEY_BLOCK
#define REDIS_DISCONNECTING VALKEY_DISCONNECTING
#define REDIS_ERR VALKEY_ERR
#define REDIS_ERR_EOF VALKEY_ERR_EOF
#define REDIS_ERR_IO VALKEY_ERR_IO
#define REDIS_ERR_OOM VALKEY_ERR_OOM
#define REDIS_ERR_OTHER VALKEY_ERR_OTHER
#define REDIS_ERR_PROTOCOL VALKEY_ERR_PROTOCOL
#define REDIS_FREEING VALKEY_FREEING
#define REDIS_IN_CALLBACK VALKEY_IN_CALLBACK
#define REDIS_MONITORING VALKEY_MONITORING
#define REDIS_OK VALKEY_OK
#define REDIS_REPLY_INTEGER VALKEY_REPLY_INTEGER
#define REDIS_REPLY_PUSH VALKEY_REPLY_PUSH
#define REDIS_SUBSCRIBED VALKEY_SUBSCRIBED

/* ours: valkey_shm.h is made of hiredis_shm.h in the same way */
#define redisAsyncSharedMemorySpin valkeyAsyncSharedMemorySpin
#define redisAsyncUseSharedMemory valkeyAsyncUseSharedMemory
#define redisAsyncUseSharedMemoryWithMode valkeyAsyncUseSharedMemoryWithMode
#define redisIsSharedMemoryInitialized valkeyIsSharedMemoryInitialized
#define redisSetSharedMemoryWaiting valkeySetSharedMemoryWaiting
#define redisSharedMemoryWaiting valkeySharedMemoryWaiting
#define redisUseSharedMemory valkeyUseSharedMemory
#define redisUseSharedMemoryWithMode valkeyUseSharedMemoryWithMode

#endif
