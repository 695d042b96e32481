/** The socket on which the back-end speaks first (SET_BACKEND_REQ_FD): the VMM's end of it. */
import { native } from '../../../native/index.ts';
import { Ack, type BackendMessage, decodeBackendMessage, encodeReply } from '../../../src/protocols/vhost-user/index.ts';
import { MessageStream } from './message-stream.ts';

export class BackendChannel {
  /** The back-end's end, to be sent to it and then closed by `handedOver`. */
  readonly remoteFd: number;
  readonly #stream: MessageStream;
  #remoteOpen = true;

  /** Calls `receive` for each message; one that asks for a reply is acknowledged after that. */
  constructor(receive: (message: BackendMessage) => void) {
    const [own, remote] = native.socketPair();
    this.remoteFd = remote;
    this.#stream = new MessageStream(own, {
      message: ({ header, payload, fds }) => {
        for (const fd of fds) native.close(fd);
        receive(decodeBackendMessage(header, payload));
        if (header.needReply) this.#stream.send(encodeReply({ name: 'u64', request: header.request, value: Ack.done }));
      },
      // The back-end may close it whenever it likes; the control channel tells whether it is gone.
      closed: () => {},
    });
  }

  /** The back-end has its end now. */
  handedOver(): void {
    if (this.#remoteOpen) native.close(this.remoteFd);
    this.#remoteOpen = false;
  }

  close(): void {
    this.handedOver();
    this.#stream.close();
  }
}
