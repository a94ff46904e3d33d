/* The per-thread error message. Not part of the product's interface: not exported, not installed. */
#ifndef CKVSTORE_THREAD_H
#define CKVSTORE_THREAD_H

/* Copies `message`, cut off at 1023 bytes, into this thread's buffer. */
void ckvstore_set_message(const char *message);

/* This thread's buffer; "" before the first failure. */
const char *ckvstore_message(void);

#endif
