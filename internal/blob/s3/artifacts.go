package s3

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/hallmark-iot/hallmark/internal/blob"
	"github.com/hallmark-iot/hallmark/release"
)

// Artifacts is a place for blobs in a folder of a bucket. It implements blob.Place; nothing of it is on this machine, so that nodes share it who share
// nothing else. An upload goes to a key of its own, because its name is known at its end only, and is copied within the service.
type Artifacts struct{ at *Bucket }

// NewArtifacts keeps blobs in a folder.
func NewArtifacts(at *Bucket) Artifacts { return Artifacts{at} }

const (
	partSize = 16 << 20  // of an upload, in bytes: each has one in memory
	copySize = 512 << 20 // that the service copies at once: it answers when it is done
	uploads  = "new/"
)

// Put implements blob.Place.
func (a Artifacts) Put(ctx context.Context, r io.Reader, name func() (string, error)) (err error) {
	tmp := a.at.prefix + uploads + rand.Text()
	in := &counted{r: r}
	if _, err := a.at.client.PutObject(ctx, a.at.name, tmp, in, -1, minio.PutObjectOptions{ContentType: "application/octet-stream", PartSize: partSize}); err != nil {
		return a.at.fail("write", "an upload", errors.Join(in.err, err))
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		if gone := a.at.client.RemoveObject(ctx, a.at.name, tmp, minio.RemoveObjectOptions{}); gone != nil && err != nil {
			err = errors.Join(err, gone) // after one that went well, it is cleared another day
		}
	}()
	to, err := name()
	if err != nil {
		return err
	}
	key, err := a.at.key(to)
	if err != nil {
		return err
	}
	if _, err := a.at.client.ComposeObject(ctx, minio.CopyDestOptions{Bucket: a.at.name, Object: key, PartSize: copySize}, minio.CopySrcOptions{Bucket: a.at.name, Object: tmp}); err != nil {
		return a.at.fail("copy to", to, err)
	}
	info, err := a.at.client.StatObject(ctx, a.at.name, key, minio.StatObjectOptions{})
	if err == nil && info.Size != in.n {
		err = errors.Join(fmt.Errorf("the service keeps %d bytes of %d", info.Size, in.n), a.Delete(ctx, to))
	}
	if err != nil {
		return a.at.fail("copy to", to, err)
	}
	return nil
}

// counted counts what is read.
type counted struct {
	r   io.Reader
	n   int64
	err error // what reading failed with, which the client may take for something else
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}

// Write implements blob.Place.
func (a Artifacts) Write(ctx context.Context, name string, data []byte) error {
	return a.at.put(ctx, name, data, minio.PutObjectOptions{})
}

// Read implements blob.Place.
func (a Artifacts) Read(ctx context.Context, name string) ([]byte, error) {
	data, err := a.at.Get(ctx, name)
	if err == nil && data == nil {
		err = release.ErrNotFound
	}
	return data, err
}

// Open implements blob.Place.
func (a Artifacts) Open(ctx context.Context, name string) (blob.Object, error) {
	key, err := a.at.key(name)
	if err != nil {
		return nil, err
	}
	asked, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	info, err := a.at.client.StatObject(asked, a.at.name, key, minio.StatObjectOptions{})
	if status(err) == http.StatusNotFound {
		return nil, release.ErrNotFound
	}
	if err != nil {
		return nil, a.at.fail("look at", name, err)
	}
	return object{ctx: ctx, at: a.at, name: name, key: key, size: info.Size}, nil
}

// Delete implements blob.Place.
func (a Artifacts) Delete(ctx context.Context, name string) error {
	key, err := a.at.key(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := a.at.client.RemoveObject(ctx, a.at.name, key, minio.RemoveObjectOptions{}); err != nil && status(err) != http.StatusNotFound {
		return a.at.fail("remove", name, err)
	}
	return nil
}

// Clear implements blob.Place. Parts that were uploaded take room until their upload is ended or aborted, and are no objects.
func (a Artifacts) Clear(ctx context.Context, before time.Time) error {
	ctx, cancel := context.WithCancel(ctx) // ends the listings that an error leaves
	defer cancel()
	folder := a.at.prefix + uploads
	for o := range a.at.client.ListObjects(ctx, a.at.name, minio.ListObjectsOptions{Prefix: folder, Recursive: true}) {
		if o.Err == nil && o.LastModified.Before(before) {
			o.Err = a.at.client.RemoveObject(ctx, a.at.name, o.Key, minio.RemoveObjectOptions{})
		}
		if o.Err != nil {
			return a.at.fail("clear", uploads, o.Err)
		}
	}
	core := minio.Core{Client: a.at.client}
	for u := range a.at.client.ListIncompleteUploads(ctx, a.at.name, a.at.prefix, true) {
		if u.Err == nil && u.Initiated.Before(before) {
			u.Err = core.AbortMultipartUpload(ctx, a.at.name, u.Key, u.UploadID)
		}
		if u.Err != nil && status(u.Err) != http.StatusNotFound { // another node ended it
			return a.at.fail("clear", uploads, u.Err)
		}
	}
	return nil
}

// object is a blob in the bucket. Each reading is a request.
type object struct {
	ctx  context.Context // of who opened it
	at   *Bucket
	name string
	key  string
	size int64
}

// ReadAt implements blob.Object.
func (o object) ReadAt(p []byte, off int64) (_ int, err error) {
	if off >= o.size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), o.size-off)]
	if len(want) == 0 {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(o.ctx, patience)
	defer cancel()
	var opts minio.GetObjectOptions
	if err := opts.SetRange(off, off+int64(len(want))-1); err != nil {
		return 0, err
	}
	body, _, _, err := minio.Core{Client: o.at.client}.GetObject(ctx, o.at.name, o.key, opts)
	if status(err) == http.StatusNotFound {
		err = release.ErrNotFound
	}
	if err != nil {
		return 0, o.at.fail("read", o.name, err)
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	n, err := io.ReadFull(body, want)
	if err != nil {
		return n, o.at.fail("read", o.name, err)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Size implements blob.Object.
func (o object) Size() int64 { return o.size }

// File implements blob.Object: it is none.
func (o object) File() *os.File { return nil }

// Close implements blob.Object.
func (o object) Close() error { return nil }
