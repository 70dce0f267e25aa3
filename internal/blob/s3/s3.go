// Package s3 keeps a log's files in a bucket of an S3 service.
//
// Under all stages. What it guarantees: a file is in its place whole, or not at all, and Swap replaces just the content it was
// told, by conditional writes: of two nodes that publish at once, the slower one takes nothing back. It trusts the service to keep
// what it acknowledged, and to decide conditions in one step. Credentials come from where S3 tools have them: the environment, the
// shared credentials file, the machine's role; never from an address.
package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/hallmark-iot/hallmark/ledger"
)

// Bucket is a folder of a bucket. It is safe for concurrent use.
type Bucket struct {
	client *minio.Client
	name   string
	prefix string // with a slash at its end, or empty
}

// maxFile bounds a file of a log: a full bundle of the largest entries.
const maxFile = 256 * (2 + 65535)

// patience bounds one call, with what is tried again of it.
const patience = 30 * time.Second

var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// IsAddress says whether an address is one of a bucket.
func IsAddress(address string) bool { return strings.HasPrefix(address, "s3://") }

// Open reads the address of a bucket, s3://bucket/prefix?endpoint=https://host:port&region=eu-central-1, and connects to nothing.
// Without an endpoint it is Amazon's of the region.
func Open(address string) (*Bucket, error) {
	bad := func(why string) (*Bucket, error) {
		return nil, fmt.Errorf("address of a bucket: %s; want s3://BUCKET/PREFIX?endpoint=https://HOST&region=REGION, without credentials", why)
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "s3" || u.Fragment != "" || u.Opaque != "" {
		return bad("malformed")
	}
	if u.User != nil {
		return bad("credentials have no place in it: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return bad("malformed parameters")
	}
	for _, name := range slices.Sorted(maps.Keys(q)) {
		if name != "endpoint" && name != "region" || len(q[name]) != 1 {
			return bad(fmt.Sprintf("parameter %q is unknown, or there twice", name))
		}
	}
	prefix := strings.Trim(u.Path, "/")
	if !bucketName.MatchString(u.Host) || prefix != "" && prefix != strings.TrimPrefix(path.Clean("/"+prefix), "/") {
		return bad(fmt.Sprintf("bucket %q, prefix %q", u.Host, prefix))
	}
	if prefix != "" {
		prefix += "/"
	}
	client, err := connect(q.Get("endpoint"), q.Get("region"))
	if err != nil {
		return bad(err.Error())
	}
	return &Bucket{client: client, name: u.Host, prefix: prefix}, nil
}

func connect(endpoint, region string) (*minio.Client, error) {
	if endpoint == "" {
		if region == "" {
			return nil, errors.New("neither endpoint nor region")
		}
		endpoint = "https://s3." + region + ".amazonaws.com"
	}
	e, err := url.Parse(endpoint)
	if err != nil || e.Host == "" || e.Scheme != "https" && e.Scheme != "http" || e.User != nil || strings.Trim(e.Path, "/") != "" || e.RawQuery != "" {
		return nil, fmt.Errorf("endpoint %q", endpoint)
	}
	return minio.New(e.Host, &minio.Options{
		Secure: e.Scheme == "https", Region: region, MaxRetries: 3,
		Creds: credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{}}),
	})
}

// Sub is a folder of it.
func (b *Bucket) Sub(dir string) *Bucket {
	return &Bucket{client: b.client, name: b.name, prefix: b.prefix + dir + "/"}
}

// String says where it is.
func (b *Bucket) String() string { return "s3://" + b.name + "/" + strings.TrimSuffix(b.prefix, "/") }

func (b *Bucket) key(name string) (string, error) {
	if name == "" || "/"+name != path.Clean("/"+name) {
		return "", fmt.Errorf("file name %q leaves its folder", name)
	}
	return b.prefix + name, nil
}

func (b *Bucket) fail(do, name string, err error) error {
	return fmt.Errorf("%s %s/%s: %w", do, b, name, err)
}

// status is the HTTP status that an error came with; 0 for none.
func status(err error) int { return minio.ToErrorResponse(err).StatusCode }

// Put writes a file.
func (b *Bucket) Put(ctx context.Context, name string, data []byte) error {
	return b.put(ctx, name, data, minio.PutObjectOptions{})
}

func (b *Bucket) put(ctx context.Context, name string, data []byte, o minio.PutObjectOptions) error {
	key, err := b.key(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	o.ContentType, o.CacheControl = "application/octet-stream", "no-cache"
	if mediaType, cache, ok := ledger.PublicFile(name); ok {
		o.ContentType, o.CacheControl = mediaType, cache
	}
	if _, err := b.client.PutObject(ctx, b.name, key, bytes.NewReader(data), int64(len(data)), o); err != nil {
		return b.fail("write", name, err)
	}
	return nil
}

// Swap writes a file if it still holds old; nil is no file.
func (b *Bucket) Swap(ctx context.Context, name string, old, data []byte) (bool, error) {
	now, tag, err := b.get(ctx, name)
	if err != nil || (now == nil) != (old == nil) || !bytes.Equal(now, old) {
		return false, err
	}
	var o minio.PutObjectOptions
	if old == nil {
		o.SetMatchETagExcept("*")
	} else {
		o.SetMatchETag(tag)
	}
	err = b.put(ctx, name, data, o)
	if s := status(errors.Unwrap(err)); err != nil && (s == http.StatusPreconditionFailed || s == http.StatusConflict || s == http.StatusNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Get reads a file; nil, nil when there is none.
func (b *Bucket) Get(ctx context.Context, name string) ([]byte, error) {
	data, _, err := b.get(ctx, name)
	return data, err
}

func (b *Bucket) get(ctx context.Context, name string) (data []byte, tag string, err error) {
	key, err := b.key(name)
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	o, err := b.client.GetObject(ctx, b.name, key, minio.GetObjectOptions{})
	if err != nil {
		return nil, "", b.fail("read", name, err)
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	data, err = io.ReadAll(io.LimitReader(o, maxFile+1))
	if e := minio.ToErrorResponse(err); err != nil && e.Code == minio.NoSuchKey {
		return nil, "", nil
	}
	if err == nil && len(data) > maxFile {
		err = errors.New("too large")
	}
	if err != nil {
		return nil, "", b.fail("read", name, err)
	}
	info, err := o.Stat()
	if err != nil {
		return nil, "", b.fail("read", name, err)
	}
	return notNil(data), info.ETag, nil
}

// notNil keeps an empty file from being none.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// Drop removes the folder dir and what is in it; there need be none.
func (b *Bucket) Drop(ctx context.Context, dir string) error {
	key, err := b.key(dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for o := range b.client.ListObjects(ctx, b.name, minio.ListObjectsOptions{Prefix: key + "/", Recursive: true}) {
		if o.Err != nil {
			return b.fail("list", dir, o.Err)
		}
		if err := b.client.RemoveObject(ctx, b.name, o.Key, minio.RemoveObjectOptions{}); err != nil {
			return b.fail("remove", dir, err)
		}
	}
	return nil
}
