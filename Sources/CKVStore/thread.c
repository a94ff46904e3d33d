#include "ckvstore_thread.h"

#include <string.h>

/* C, because Swift has no thread-local storage without Foundation. */
static _Thread_local char message_buffer[1024];

void ckvstore_set_message(const char *message) {
    strncpy(message_buffer, message, sizeof message_buffer - 1);
    message_buffer[sizeof message_buffer - 1] = '\0';
}

const char *ckvstore_message(void) { return message_buffer; }
