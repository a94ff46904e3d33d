/* The header is the whole of this target; one translation unit keeps the build system content and proves
 * that kvstore.h compiles on its own. */
#include "kvstore.h"
