/** The requests about secrets and keys: each takes a request over and answers it. Layouts in wire.h. */
#ifndef FUSECRYPT_KEY_REQUESTS_H
#define FUSECRYPT_KEY_REQUESTS_H

#include "control.h"

void key_load_secret(struct request *r);
void key_drop_secret(struct request *r);
void key_open_keyslot(struct request *r);
void key_create_keyslot(struct request *r);
void key_generate(struct request *r);
void key_load(struct request *r);
void key_plain(struct request *r);
void key_loopaes(struct request *r);
void key_of_table(struct request *r);
void key_make_digest(struct request *r);
void key_benchmark(struct request *r);
void key_benchmark_cipher(struct request *r);
void key_import(struct request *r);
void key_export(struct request *r);
void key_make_pkey(struct request *r);
void key_rsa(struct request *r);

#endif
