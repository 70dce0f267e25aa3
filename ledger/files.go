package ledger

import (
	"regexp"
	"strings"
)

// What readers may do with a log's files: all but the checkpoint are the same for ever, partial ones too.
const (
	cacheForEver = "public, max-age=31536000, immutable"
	cacheNever   = "no-cache" // may be kept, and must be asked for each time: with its ETag that costs little
)

// The paths of c2sp.org/tlog-tiles: level, number in groups of three digits, width unless it is full.
var tileFile = regexp.MustCompile(`^tile/(?:entries|[0-9]|[1-5][0-9]|6[0-3])/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?:[1-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5]))?$`)

// PublicFile tells how a file of a log is served: its media type, and who may keep it for how long. What is not a log's public file in
// its one form is not ok.
func PublicFile(path string) (mediaType, cacheControl string, ok bool) {
	if path == "checkpoint" {
		return "text/plain; charset=utf-8", cacheNever, true
	}
	m := tileFile.FindStringSubmatch(path)
	if m == nil || strings.HasPrefix(m[1], "x000/") {
		return "", "", false
	}
	return "application/octet-stream", cacheForEver, true
}
