// Package confine takes from a process what it does not need: files and ports (Landlock), system calls (seccomp), privileges, core dumps.
//
// Stage 3, field, on the device. The key store confines itself by it, and the launcher every program of a release. What is taken is taken for good,
// from what the process starts as well. Nothing here decides what anybody may: that is the caller's. A kernel that cannot do a thing is an error,
// and never passed over.
package confine
