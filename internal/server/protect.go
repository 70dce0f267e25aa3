package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/protect"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/wire"
)

// openProtect opens the stage that keeps the keys of protected programs.
func (i *Instance) openProtect() error {
	vault, err := newSealer(i.keys)
	if err != nil {
		return err
	}
	i.protect, err = protect.NewService(protect.Config{
		Store: i.db.ContentKeys(), Vault: vault, Device: i.db.Devices().Device,
		Manifest: func(ctx context.Context, digest [32]byte) (wire.Release, error) {
			r, err := i.db.Releases().Release(ctx, digest)
			return r.Manifest, err
		},
		Told: i.told,
	})
	return err
}

// told gives the releases that a device is told to install, as far as they are still handed out.
func (i *Instance) told(ctx context.Context, id string, now time.Time) (out []protect.Told, err error) {
	list, err := i.db.Devices().Outstanding(ctx, id, now)
	if err != nil {
		return nil, err
	}
	for _, c := range list {
		if !wire.NeedsRelease(c.Wire.Act) || len(c.Wire.Release) != sha256.Size {
			continue
		}
		digest := [32]byte(c.Wire.Release)
		r, err := i.db.Releases().Release(ctx, digest)
		if err != nil {
			return nil, err
		}
		if r.Status == release.Published && r.Closed.IsZero() {
			out = append(out, protect.Told{Digest: digest, Manifest: r.Manifest})
		}
	}
	return out, nil
}

// codeKeys gives the keys that evidence asks for, or says why not.
func (i *Instance) codeKeys(ctx context.Context, caller access.Caller, v attest.Verdict) ([]wire.Wrap, string) {
	keys, err := i.protect.Give(ctx, caller, protect.Asked{Device: v.Device, Status: v.Word, Release: v.Release, Nonce: v.EAR.Nonce, CodeKey: v.CodeKey})
	if err == nil {
		return keys, ""
	}
	i.log.WarnContext(ctx, "no keys of protected programs", "device", v.Device, "error", err)
	if f, ok := errors.AsType[*fault.Fault](err); ok {
		return nil, f.Error()
	}
	return nil, "the server cannot give any now"
}
