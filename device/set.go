package device

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/singleflight"

	"github.com/hallmark-iot/hallmark/wire"
)

// setTree is the whole Merkle tree over a device set, so that the path of one of 100,000 devices costs 17 look-ups and not
// 200,000 hashes. The paths are those of wire.MembershipOf.
type setTree struct {
	ids    []string // sorted
	levels [][][32]byte
}

func newSetTree(ids []string) *setTree {
	t := &setTree{ids: slices.Sorted(slices.Values(ids))}
	level := make([][32]byte, len(t.ids))
	for i, id := range t.ids {
		level[i] = sha256.Sum256(append([]byte{0}, id...))
	}
	t.levels = append(t.levels, level)
	for len(level) > 1 {
		up := make([][32]byte, 0, (len(level)+1)/2)
		for i := 0; i+1 < len(level); i += 2 {
			var b [65]byte
			b[0] = 1
			copy(b[1:], level[i][:])
			copy(b[33:], level[i+1][:])
			up = append(up, sha256.Sum256(b[:]))
		}
		if len(level)%2 == 1 { // the last of an odd level moves up as it is (RFC 6962 §2.1)
			up = append(up, level[len(level)-1])
		}
		level = up
		t.levels = append(t.levels, level)
	}
	return t
}

func (t *setTree) membership(id string) (wire.Membership, error) {
	i, ok := slices.BinarySearch(t.ids, id)
	if !ok {
		return wire.Membership{}, fmt.Errorf("device %s is not in the set", id)
	}
	m := wire.Membership{Index: uint64(i)}
	for _, level := range t.levels[:len(t.levels)-1] {
		if j := i ^ 1; j < len(level) {
			m.Path = append(m.Path, level[j][:])
		}
		i /= 2
	}
	return m, nil
}

// maxCached bounds the device IDs whose trees are kept.
const maxCached = 1 << 20

// setCache keeps the trees of recent sets. Its zero value is empty and ready.
type setCache struct {
	mu    sync.Mutex
	trees map[string]*setTree // guarded by mu
	loads singleflight.Group  // a set is asked for by all its devices at once
	size  int                 // IDs in trees; guarded by mu
}

func (c *setCache) get(ctx context.Context, key string, load func(context.Context) ([]string, error)) (*setTree, error) {
	c.mu.Lock()
	t := c.trees[key]
	c.mu.Unlock()
	if t != nil {
		return t, nil
	}
	made, err, _ := c.loads.Do(key, func() (any, error) {
		return c.load(context.WithoutCancel(ctx), key, load) // one device goes away, and the others still wait
	})
	t, _ = made.(*setTree)
	return t, err
}

func (c *setCache) load(ctx context.Context, key string, load func(context.Context) ([]string, error)) (*setTree, error) {
	ids, err := load(ctx)
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("set %s: no devices", key)
	}
	t := newSetTree(ids)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.size+len(ids) > maxCached || c.trees == nil {
		c.trees, c.size = map[string]*setTree{}, 0 // start over: simple, and rare
	}
	if c.trees[key] == nil {
		c.trees[key] = t
		c.size += len(ids)
	}
	return t, nil
}
