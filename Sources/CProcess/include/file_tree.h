/* Folders with folders in them, which others may have written to: paths below a root are relative, and no name in them is
 * followed out of it. Results are non-negative, or a negated errno. Paths are the addresses of NUL-terminated strings. */
#ifndef SNPVMM_FILE_TREE_H
#define SNPVMM_FILE_TREE_H

#include <stdint.h>

/* The relative paths of the regular files below a folder, each ended by NUL, in any order: links to regular files count,
 * linked folders are not entered, names that begin with a dot are left out, as is what lies deeper than
 * FILE_TREE_MAXIMUM_DEPTH folders. Returns how many bytes they take; -ERANGE when that is more than `byte_count`. */
int64_t file_tree_names(uint64_t root_address, uint64_t address, uint64_t byte_count);
#define FILE_TREE_MAXIMUM_DEPTH 8

/* Opens a file below the folder for reading, when neither it nor a folder on the way is a link (-ELOOP, -ENOTDIR). */
int32_t file_tree_open(uint64_t root_address, uint64_t path_address);

/* Replaces a file below an existing folder by these bytes, with mode 0644, and makes folders on the way with mode 0755,
 * both less the process's mask: a reader sees the old bytes or the new ones. A link in the file's place is replaced, one in
 * a folder's place is -ELOOP or -ENOTDIR. A path with an empty, "." or ".." part is -EINVAL. */
int32_t file_tree_replace(uint64_t root_address, uint64_t path_address, uint64_t address, uint64_t byte_count);

#endif
