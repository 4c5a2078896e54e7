/* SPDX-License-Identifier: Apache-2.0 */
/* DOC: how a layer's blob is packed; shared by the unpacker and by what reads manifests */
#ifndef IMAGES_LAYER_FORM_H
#define IMAGES_LAYER_FORM_H

enum layer_form { LAYER_FORM_NONE = 0, LAYER_TAR, LAYER_GZIP, LAYER_ZSTD };

#endif
