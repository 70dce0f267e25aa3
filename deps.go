//go:build deps

package hallmark

import (
	_ "github.com/a-h/templ"
	_ "github.com/cedar-policy/cedar-go"
	_ "github.com/danielgtaylor/huma/v2"
	_ "github.com/fxamacker/cbor/v2"
	_ "github.com/miekg/pkcs11"
	_ "github.com/pressly/goose/v3"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "github.com/smallstep/pkcs7"
	_ "github.com/spf13/cobra"
	_ "github.com/veraison/go-cose"
	_ "go.uber.org/goleak"
	_ "golang.org/x/crypto/cryptobyte"
	_ "golang.org/x/mod/sumdb/tlog"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/sys/unix"
	_ "golang.org/x/term"
	_ "modernc.org/sqlite"
	_ "pgregory.net/rapid"
)
