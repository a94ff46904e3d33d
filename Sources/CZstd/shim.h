/* The parameter by which a literal is Huffman-coded although no match is looked for is among zstd's experimental ones;
 * its number is part of the library's ABI all the same. Swift does not see macros that name enumerators. */
#ifndef KVSTORE_CZSTD_SHIM_H
#define KVSTORE_CZSTD_SHIM_H
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

static const ZSTD_cParameter kv_zstd_literal_compression_mode = ZSTD_c_literalCompressionMode;
static const int kv_zstd_literal_compression_on = ZSTD_ps_enable;
#endif
