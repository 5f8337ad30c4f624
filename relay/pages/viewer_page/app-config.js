/*
 * What makes OHIF the viewer of this gateway: where the images are, how mammograms hang, what is switched off.
 *
 * Runs before OHIF's own script and hands everything over in `window.config`. An extension may be a plain object in it,
 * so nothing of OHIF is built or changed for this. `relay/pages/viewer_bundle.py` says which version it is written for.
 */
(function () {
  'use strict';

  const VIEWER = '/viewer/';
  const DICOM_WEB = '/dicom-web';

  // OHIF's own page defines these two inline, which our content security policy forbids.
  window.PUBLIC_URL = VIEWER;
  window.browserImportFunction = name => import(name);

  // --- Which view an image shows (PS3.3 C.8.11.7; CID 4014 in SNOMED CT and in the older code units still send) ------

  const VIEW_OF_CODE = { 399162004: 'CC', 'R-10242': 'CC', 399368009: 'MLO', 'R-10226': 'MLO' };
  const STANDARD_VIEWS = ['RCC', 'LCC', 'RMLO', 'LMLO'];
  const FLAT = '2D';
  const TOMOSYNTHESIS = 'tomosynthesis';

  const first = values => [].concat(values ?? [])[0] ?? {};
  const firstImage = displaySet => first(displaySet && (displaySet.instances || displaySet.images));

  function sideOf(image) {
    const anatomy = first(first(image.SharedFunctionalGroupsSequence).FrameAnatomySequence);
    return image.ImageLaterality || anatomy.FrameLaterality || image.Laterality || '';
  }

  const viewOf = image => VIEW_OF_CODE[first(image.ViewCodeSequence).CodeValue] || image.ViewPosition || '';
  const kindOf = image => (Number(image.NumberOfFrames || 1) > 1 ? TOMOSYNTHESIS : FLAT);

  /* For example 'RCC 2D' or 'LMLO tomosynthesis'; undefined for what is none of these. */
  function mammogram(displaySet) {
    const image = firstImage(displaySet);
    const view = sideOf(image) + viewOf(image);
    return image.Modality === 'MG' && STANDARD_VIEWS.includes(view) ? `${view} ${kindOf(image)}` : undefined;
  }

  /* How many different standard views a study has. */
  function standardViews(study, options) {
    const displaySets = (options && options.displaySets) || [];
    return new Set(displaySets.map(mammogram).filter(Boolean)).size;
  }

  // --- The hanging: right breast on the left, chest walls against each other, CC above MLO ---------------------------

  /* Processed images before raw ones, because For Processing is an inverted, flat picture. */
  const selector = name => ({
    seriesMatchingRules: [
      { attribute: 'gatewayMammogram', required: true, weight: 10, constraint: { equals: { value: name } } },
      { attribute: 'gatewayForPresentation', weight: 5, constraint: { equals: { value: true } } },
    ],
  });

  function viewport(name) {
    const chestWall = name.startsWith('R') ? 1 : 0;
    const anchor = [chestWall, 0.5];
    return {
      viewportOptions: {
        toolGroupId: 'default',
        allowUnmatchedView: true, // a view that was not taken leaves its place empty
        displayArea: {
          type: 'FIT',
          storeAsInitialCamera: true, // what Reset comes back to
          imageArea: [1, 1],
          imageCanvasPoint: { imagePoint: anchor, canvasPoint: anchor },
        },
      },
      displaySets: [{ id: name }],
    };
  }

  const stage = kind => ({
    name: `CC and MLO, ${kind}`,
    stageActivation: { enabled: { minViewportsMatched: 1 } },
    viewportStructure: { layoutType: 'grid', properties: { rows: 2, columns: 2 } },
    viewports: STANDARD_VIEWS.map(view => viewport(`${view} ${kind}`)),
  });

  const names = STANDARD_VIEWS.flatMap(view => [`${view} ${FLAT}`, `${view} ${TOMOSYNTHESIS}`]);

  const fourViews = {
    id: 'gateway.mammography',
    name: 'Mammography, four views',
    hasUpdatedPriorsInformation: false,
    numberOfPriorsReferenced: 0,
    toolGroupIds: ['default'],
    protocolMatchingRules: [
      { attribute: 'gatewayStandardViews', required: true, weight: 200, constraint: { greaterThan: { value: 0 } } },
    ],
    displaySetSelectors: Object.fromEntries(names.map(name => [name, selector(name)])),
    stages: [stage(FLAT), stage(TOMOSYNTHESIS)],
  };

  // --- What is written on an image: on the side away from the chest wall ---------------------------------------------

  const isLeft = ({ referenceInstance }) => sideOf(referenceInstance || {}) === 'L';
  const isNotLeft = overlay => !isLeft(overlay);

  const overlay = (id, title, condition, contentF) => ({
    id,
    inheritsFrom: 'ohif.overlayItem',
    label: '',
    title,
    condition: shown => Boolean(shown.referenceInstance) && condition(shown),
    contentF,
  });

  function viewLabel({ referenceInstance: image }) {
    const label = [sideOf(image), viewOf(image)].filter(Boolean).join(' ');
    return label || (image.Modality === 'MG' ? 'View unknown' : '');
  }

  function descriptionLabel(shown) {
    const description = shown.referenceInstance.SeriesDescription;
    return description === viewLabel(shown) ? '' : description;
  }

  const labels = condition => [
    overlay('gatewayView', 'View', condition, viewLabel),
    overlay('gatewayDescription', 'Series description', condition, descriptionLabel),
    overlay('gatewayDate', 'Study date', condition, ({ referenceInstance, formatters }) =>
      formatters.formatDate(referenceInstance.StudyDate)),
  ];

  // --- Reset ---------------------------------------------------------------------------------------------------------

  /*
   * OHIF's own leaves a MONOCHROME1 image as a negative: its flag says inverted and its colours are not (seen in
   * 3.13.2, like OHIF/Viewers issue 5604). It is not called; window and inversion are set, which keeps them together.
   */
  function resetActiveViewport(services) {
    const { viewportGridService, cornerstoneViewportService, displaySetService } = services;
    const id = viewportGridService.getActiveViewportId();
    const viewport = cornerstoneViewportService.getCornerstoneViewport(id);
    if (!viewport) return;
    const [uid] = viewportGridService.getDisplaySetsUIDsForViewport(id) || [];
    const image = firstImage(displaySetService.getDisplaySetByUID(uid));
    if (image.PhotometricInterpretation === 'MONOCHROME1') {
      viewport.setProperties({ voiRange: storedWindow(image), invert: true });
    } else if (viewport.resetProperties) {
      viewport.resetProperties();
    }
    viewport.resetCamera();
    viewport.render();
  }

  /* The values an image wants shown (PS3.3 C.11.2.1.2); undefined, which changes nothing, where it does not say. */
  function storedWindow(image) {
    const center = Number(first(image.WindowCenter));
    const width = Number(first(image.WindowWidth));
    return width > 0 ? { lower: center - width / 2, upper: center + width / 2 } : undefined;
  }

  // --- VOI LUT Function (0028,1056) ----------------------------------------------------------------------------------

  /*
   * OHIF hands it over as text, and Cornerstone takes its first letter for the function, so that no image that has the
   * attribute is shown (seen in 3.13.2; OHIF/Viewers issue 6239, cornerstone3D issue 2844). Under this other name it
   * takes the whole.
   */
  function handOverVoiLutFunction(metaData) {
    let asking = false;
    const provider = (type, imageId) => {
      if (type !== 'voiLutModule' || asking) return undefined;
      asking = true;
      try {
        const { voiLUTFunction, ...others } = metaData.get(type, imageId) || {};
        return others.windowCenter && { ...others, voiLutFunction: voiLUTFunction };
      } finally {
        asking = false;
      }
    };
    metaData.addProvider(provider, 100000); // before all of OHIF's own
  }

  const extension = {
    id: 'gateway.extension',
    preRegistration({ servicesManager }) {
      handOverVoiLutFunction(window.cornerstone.metaData);
      const { hangingProtocolService } = servicesManager.services;
      const add = hangingProtocolService.addCustomAttribute.bind(hangingProtocolService);
      add('gatewayMammogram', 'View and kind of a mammogram', mammogram);
      add('gatewayForPresentation', 'Whether it is processed', displaySet =>
        firstImage(displaySet).PresentationIntentType !== 'FOR PROCESSING');
      add('gatewayStandardViews', 'Number of standard views', standardViews);
    },
    getHangingProtocolModule: () => [{ name: fourViews.id, protocol: fourViews }],
    getCommandsModule: ({ servicesManager }) => ({
      defaultContext: 'CORNERSTONE',
      definitions: { resetViewport: { commandFn: () => resetActiveViewport(servicesManager.services) } },
    }),
  };

  // --- The configuration ---------------------------------------------------------------------------------------------

  const hidden = name => [name, { hide: { $set: true } }];

  window.config = {
    name: 'Screening gateway',
    routerBasename: VIEWER,
    showStudyList: false, // studies are opened from the gateway's own pages
    extensions: [extension],
    modes: [],
    modesConfiguration: {
      '@ohif/mode-longitudinal': {
        displayName: { $set: 'Mammography' },
        hangingProtocol: { $set: [fourViews.id, 'default'] },
      },
      ...Object.fromEntries(
        [
          '@ohif/mode-segmentation',
          '@ohif/mode-tmtv',
          '@ohif/mode-microscopy',
          '@ohif/mode-preclinical-4d',
          '@ohif/mode-ultrasound-pleura-bline',
        ].map(hidden)
      ),
    },
    customizationService: [
      {
        'ohif.tours': { $set: [] }, // the first-use tour covers the images
        'viewportOverlay.topLeft': { $set: labels(isNotLeft) },
        'viewportOverlay.topRight': { $set: labels(isLeft) },
      },
    ],
    showPatientInfo: 'visible', // whose images these are
    whiteLabeling: {
      createLogoComponentFn: React =>
        React.createElement('a', { href: '/', style: { color: '#fff', fontWeight: 600 } }, 'Screening gateway'),
    },
    investigationalUseDialog: { option: 'never' }, // our page has the mark, always
    useCPURendering: !document.createElement('canvas').getContext('webgl2'), // remote desktops have no WebGL
    showCPUFallbackMessage: false, // it covers the images, dark on dark
    showWarningMessageForCrossOrigin: false,
    showLoadingIndicator: true,
    strictZSpacingForVolumeViewport: true,
    groupEnabledModesFirst: true,
    maxNumberOfWebWorkers: 3,
    maxNumRequests: { interaction: 100, thumbnail: 5, prefetch: 25 },
    defaultDataSourceName: 'dicomweb',
    dataSources: [
      {
        namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
        sourceName: 'dicomweb',
        configuration: {
          friendlyName: 'Screening gateway',
          name: 'gateway',
          wadoUriRoot: DICOM_WEB,
          qidoRoot: DICOM_WEB,
          wadoRoot: DICOM_WEB,
          imageRendering: 'wadors',
          thumbnailRendering: 'thumbnail', // made by the gateway, which gets MONOCHROME1 right
          enableStudyLazyLoad: true,
          qidoSupportsIncludeField: false,
          supportsFuzzyMatching: false,
          supportsWildcard: true,
          supportsReject: false,
          supportsStow: false,
          omitQuotationForMultipartRequest: true,
          bulkDataURI: { enabled: true },
        },
      },
    ],
  };
})();
